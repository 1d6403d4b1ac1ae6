"""The configuration document: documented defaults, units, near misses, and sums that must fit."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from appliance.cluster.config import KNOWN_KEYS, ConfigError, Policy, duration_s, merged, read_policy, size_bytes


def test_the_documented_defaults():
    policy = read_policy({})

    assert policy == Policy()
    assert policy.ttl_s == 6
    assert policy.failure_timeout_s == 2
    assert policy.loop_wait_s == 1
    assert policy.renew_interval_s == 0.5
    assert policy.guard_margin_s == 0.5
    assert policy.clock_drift == 0.01
    assert policy.primary_start_timeout_s == 60
    assert policy.maximum_lag_on_failover_bytes == 1 << 20
    assert (policy.synchronous_mode, policy.synchronous_node_count, policy.fencing) == ("quorum", 1, "quorum")
    assert (policy.synchronous_mode_strict, policy.maximum_lag_on_syncnode_bytes) == (False, None)


def test_without_standbys_that_confirm_votes_fence_nobody():
    assert read_policy({"synchronous_mode": "off"}).fencing == "lease"
    assert read_policy({"failover": {"fencing": "lease"}}).fencing == "lease"
    with pytest.raises(ConfigError, match=r"failover\.fencing: votes fence nobody"):
        read_policy({"synchronous_mode": "off", "failover": {"fencing": "quorum"}})


def test_a_primary_has_less_time_to_stop_where_an_immediate_stop_loses_nothing():
    assert read_policy({}).primary_stop_timeout_s == 5
    assert read_policy({"synchronous_mode": "off"}).primary_stop_timeout_s == 60
    assert read_policy({"synchronous_mode": "off", "primary_stop_timeout": "3s"}).primary_stop_timeout_s == 3


def test_synchronous_settings_are_read_as_patroni_has_them():
    policy = read_policy(
        {"synchronous_mode": True, "synchronous_mode_strict": True, "synchronous_node_count": 2}
        | {"maximum_lag_on_syncnode": "1MB"}
    )

    assert (policy.synchronous_mode, policy.synchronous_mode_strict) == ("on", True)
    assert (policy.synchronous_node_count, policy.maximum_lag_on_syncnode_bytes) == (2, 1 << 20)
    assert read_policy({"maximum_lag_on_syncnode": -1}).maximum_lag_on_syncnode_bytes is None


@pytest.mark.parametrize(
    ("document", "expected_s"),
    [
        ({"ttl": "30s"}, 0.5),
        ({"ttl": "30s", "failure_timeout": "10s"}, 1.0),
        ({"ttl": "24s", "failure_timeout": "10s", "loop_wait": "10s"}, 2.0),
        ({"loop_wait": "200ms"}, 0.2),
        ({"renew_interval": "100ms"}, 0.1),
    ],
)
def test_the_renew_interval_follows_from_the_others_unless_it_is_set(document, expected_s):
    assert read_policy(document).renew_interval_s == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("2s", 2),
        ("30min", 1800),
        ("1h", 3600),
        ("1d", 86400),
        (5, 5),
        (0.5, 0.5),
        (" 7 s ", 7),
        ("8", 8),
    ],
)
def test_durations(written, seconds):
    assert duration_s("ttl", written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "number"),
    [("1MB", 1 << 20), ("64kB", 1 << 16), ("2GB", 2 << 30), ("1TB", 1 << 40), ("10B", 10), (7, 7), ("1.5kB", 1536)],
)
def test_sizes(written, number):
    assert size_bytes("maximum_lag_on_failover", written) == number


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"ttl": "6 seconds"}, "ttl: unit 'seconds' in '6 seconds' is not one of ms, s, min, h, d"),
        ({"ttl": "6S"}, "ttl: unit 'S'"),
        ({"ttl": "six"}, "ttl: 'six' is not a number with a unit; write for example 2s or 500ms"),
        ({"ttl": True}, "ttl: True is not a number with a unit"),
        ({"ttl": None}, "ttl: None is not a number with a unit"),
        ({"ttl": -1}, "ttl: -1 is negative"),
        ({"ttl": float("nan")}, "ttl: nan is not a number"),
        ({"ttl": float("inf")}, "ttl: inf is not a number"),
        ({"ttl": 10**400}, "ttl: 1000"),
        ({"ttl": "9" * 400}, "ttl: '9999"),
        ({"maximum_lag_on_failover": "1MiB"}, "maximum_lag_on_failover: unit 'MiB' in '1MiB' is not one of B, kB"),
        ({"maximum_lag_on_failover": float("inf")}, "maximum_lag_on_failover: inf is not a number"),
        ({"clock_drift": "50%"}, "clock_drift: '50%' is more than clocks may differ; write less than 50%"),
        ({"clock_drift": "1s"}, "clock_drift: unit 's'"),
        ({"synchronous_node_count": 0}, "synchronous_node_count: 0 is no number of standbys; write 1 to 8"),
        ({"synchronous_node_count": True}, "synchronous_node_count: True is no number of standbys"),
        ({"synchronous_node_count": "2"}, "synchronous_node_count: '2' is no number of standbys"),
        ({"synchronous_mode_strict": 1}, "synchronous_mode_strict: 1 is neither true nor false"),
        ({"maximum_lag_on_syncnode": -2}, "maximum_lag_on_syncnode: -2 is negative or too large"),
        ({"synchronous_mode": "maybe"}, "synchronous_mode: 'maybe' is not one of off, on, quorum"),
        ({"failover": {"fencing": "maybe"}}, "failover.fencing: 'maybe' is not one of quorum, lease"),
        ({"failover": "lease"}, "failover: expected settings below it, got 'lease'"),
        ({"postgresql": None}, "postgresql: expected settings below it"),
        ({"postgresql": {"use_pg_rewind": "yes"}}, "postgresql.use_pg_rewind: 'yes' is neither true nor false"),
        ({"postgresql": {"pg_hba": "local all"}}, "postgresql.pg_hba: expected a list of lines"),
        ({"postgresql": {"pg_hba": [1]}}, "postgresql.pg_hba: expected a list of lines"),
        ({"postgresql": {"parameters": []}}, "postgresql.parameters: expected parameter names with values"),
        ({"postgresql": {"parameters": {"work_mem": None}}}, "postgresql.parameters.work_mem: None is not a single"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_value_that_does_not_fit_names_key_value_and_what_would_do(document, message):
    with pytest.raises(ConfigError) as caught:
        read_policy(document)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("tttl", "ttl"),
        ("loopwait", "loop_wait"),
        ("maximum_lag_on_failure", "maximum_lag_on_failover"),
        ("synchronous_modes", "synchronous_mode"),
        ("failover.fence", "failover.fencing"),
        ("postgresql.parameter", "postgresql.parameters"),
        ("postgresql.pg_hbas", "postgresql.pg_hba"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key, near):
    section, _, name = key.rpartition(".")
    with pytest.raises(ConfigError, match=f"^{key}: unknown setting; did you mean {near}\\?$"):
        read_policy({section: {name: 1}} if section else {name: 1})


def test_a_key_that_resembles_nothing_lists_all():
    with pytest.raises(ConfigError) as caught:
        read_policy({"zzz": 1})
    assert all(key in str(caught.value) for key in KNOWN_KEYS)


def test_postgresql_parameters_are_written_as_postgresql_does():
    parameters = {"jit": False, "fsync": True, "work_mem": "8MB", "max_connections": 200, "seq_page_cost": 1.5}

    assert read_policy({"postgresql": {"parameters": parameters}}).parameters == {
        "jit": "off", "fsync": "on", "work_mem": "8MB", "max_connections": "200", "seq_page_cost": "1.5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"ttl": "4s"},
            "ttl: 60 % of 4s is 2.4s, less than renew_interval + 2 x the longest raft election + 0.5s = 2.83333s;",
        ),
        (
            {"renew_interval": "600ms"},
            "failure_timeout: 2s is less than 4 x renew_interval = 2.4s; raise it or lower renew_interval",
        ),
        ({"failure_timeout": "400ms"}, "failure_timeout: 0.4s is below the minimum of 500ms"),
        ({"loop_wait": 0}, "loop_wait: 0s must be above 0s"),
        ({"renew_interval": "0s"}, "renew_interval: 0s must be above 0s"),
        (
            {"guard_margin": "50ms"},
            "guard_margin: 0.05s must lie between 100ms and what is left of the lease when the node begins to fence",
        ),
        ({"guard_margin": "2340ms"}, "guard_margin: 2.34s must lie between 100ms and"),
        ({"clock_drift": "35%"}, "guard_margin: 0.5s must lie between 100ms and"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_timings_that_contradict_each_other_print_the_sums(document, message):
    with pytest.raises(ConfigError) as caught:
        read_policy(document)
    assert str(caught.value).startswith(message)


def test_a_longer_raft_election_needs_a_longer_ttl():
    with pytest.raises(ConfigError, match=r"raise ttl to at least 8\.34s"):
        read_policy({}, election_max_s=2.0)
    assert read_policy({"ttl": "8.34s"}, election_max_s=2.0)


def test_the_ttl_that_the_error_names_is_accepted_though_the_renew_interval_grows_with_it():
    with pytest.raises(ConfigError, match=r"raise ttl to at least 4\.84s"):
        read_policy({"ttl": "4s"})
    assert read_policy({"ttl": "4.84s"})


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"ttl": "9s"}, {"ttl": "9s", "failover": {"fencing": "lease"}}),
        ({"ttl": None, "loop_wait": None}, {"failover": {"fencing": "lease"}}),
        ({"failover": {"fencing": None}}, {"ttl": "6s"}),
        ({"failover": None}, {"ttl": "6s"}),
        ({"failover": {"x": 1}}, {"ttl": "6s", "failover": {"fencing": "lease", "x": 1}}),
        ({"ttl": {"x": {"y": 1}}}, {"ttl": {"x": {"y": 1}}, "failover": {"fencing": "lease"}}),
    ],
)
def test_a_patch_says_what_changes_and_null_is_the_default(patch, expected):
    document = {"ttl": "6s", "failover": {"fencing": "lease"}}
    assert merged(document, patch) == expected
    assert document == {"ttl": "6s", "failover": {"fencing": "lease"}}


@pytest.mark.parametrize("value", ["local", "off", False, "remote_write", "LOCAL"])
def test_a_default_by_which_every_commit_opts_out_is_refused_in_synchronous_mode(value):
    document = {"postgresql": {"parameters": {"Synchronous_Commit": value}}}
    with pytest.raises(ConfigError, match=r"synchronous_commit: with '.*' no commit waits until a standby has it"):
        read_policy(document)
    assert read_policy({**document, "synchronous_mode": "off"}).parameters


@pytest.mark.parametrize("value", ["on", True, "remote_apply", "ON"])
def test_what_waits_for_the_standbys_disk_may_be_the_default(value):
    assert read_policy({"postgresql": {"parameters": {"synchronous_commit": value}}}).synchronous_mode == "quorum"


def test_strict_and_off_contradict_each_other():
    with pytest.raises(ConfigError, match=r"synchronous_mode_strict: commits that wait for nobody"):
        read_policy({"synchronous_mode": "off", "synchronous_mode_strict": True})


def accepted(document):
    try:
        return read_policy(document)
    except ConfigError:
        return None


@st.composite
def timings(draw):
    """Around what is accepted, on both sides of each inequality: of numbers drawn alone hardly any fit together."""
    renew_s = draw(st.floats(0.05, 5))
    failure_s = 4 * renew_s * draw(st.floats(0.95, 4))
    drift = draw(st.floats(0, 0.2))
    ttl_s = (renew_s + 2.5) / 0.6 * draw(st.floats(0.95, 5))
    margin_s = (0.4 - drift) * ttl_s * draw(st.floats(0.05, 1.05))
    return {
        "ttl": ttl_s,
        "failure_timeout": max(failure_s, draw(st.floats(0.45, 1))),
        "loop_wait": draw(st.floats(0.05, 60)),
        "guard_margin": margin_s,
        "clock_drift": drift,
    } | draw(st.sampled_from([{}, {"renew_interval": renew_s}]))


@settings(max_examples=300, deadline=None)
@given(ttl=st.floats(4, 60), guard_margin=st.floats(0.1, 5), drift=st.floats(0, 0.2), share=st.floats(0, 1))
def test_r3_r4_guard_then_lease_then_deposition_whatever_the_clocks_do(ttl, guard_margin, drift, share):
    """Of accepted timings and two clocks whose rates differ by at most clock_drift, in real time from the question."""
    document = {"ttl": ttl, "guard_margin": guard_margin, "clock_drift": drift}
    policy = accepted(document)
    assume(policy is not None)
    apart = 1 + policy.clock_drift * share
    for holder_rate, leader_rate in ((1.0, apart), (apart, 1.0)):
        fenced_s = (policy.lease_s - policy.fence_below_s) / holder_rate
        guard_s = (policy.lease_s - policy.guard_margin_s) / holder_rate
        lease_s = policy.lease_s / holder_rate
        deposed_s = policy.depose_after_s / leader_rate
        assert 0 < fenced_s < guard_s < lease_s
        assert lease_s <= deposed_s + 1e-9
        assert guard_s < deposed_s


@settings(max_examples=200, deadline=None)
@given(document=timings())
def test_what_is_accepted_keeps_every_documented_inequality(document):
    policy = accepted(document)
    assume(policy is not None)

    assert 0.6 * policy.ttl_s >= policy.renew_interval_s + 2 * 1.0 + 0.5 - 1e-6
    assert policy.failure_timeout_s >= 4 * policy.renew_interval_s - 1e-6
    assert policy.guard_margin_s < policy.fence_below_s
    assert policy.renew_interval_s > 0


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*KNOWN_KEYS, "failover", "postgresql", "x", "", "."]) | st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
        ),
        max_size=3,
    )
)
def test_any_document_is_read_or_refused_with_a_configuration_error(document):
    policy = accepted(document)

    assert policy is None or policy.ttl_s > 0


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        read_policy({"tll": "6s", "loop_wait": "1x", "failover": 7, "postgresql": {"parameters": [], "pg_hba": ["x"]}})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "tll",
        "loop_wait",
        "failover",
        "postgresql.parameters",
    ]
    with pytest.raises(ConfigError) as caught:
        read_policy({"ttl": "2s", "failure_timeout": "100ms"})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "failure_timeout",
        "ttl",
    ]


def test_a_document_of_nothing_but_mistakes_has_a_short_reason():
    with pytest.raises(ConfigError, match=r"\(and 95 more\)$") as caught:
        read_policy({f"key{number}": 1 for number in range(100)})
    assert len(caught.value.problems) == 100
