"""The commented file that `appliance node --sample` prints."""

SAMPLE = """\
# The file of one node: /etc/appliance/node.yml. `appliance node --config F --check` says what is wrong with it.
# Values behind a # are the defaults. What all nodes share (ttl, PostgreSQL parameters, ...) is the configuration
# document; bootstrap.config below is only its first version.

name: pg1                          # this node, one of members
cluster: shop                      # the same on every node: strangers are refused
# role: data                       # PostgreSQL and a vote; witness: a vote alone; learner: PostgreSQL without a vote

members:                           # all members with their raft addresses, the same on every node; 1, 3, 5 or 7
  pg1: 10.0.0.11:7400
  pg2: 10.0.0.12:7400
  pg3: 10.0.0.13:7400

# state_dir: /var/lib/appliance    # consensus, secrets, sockets and, unless told otherwise, the data directory

# raft:
#   listen: 0.0.0.0:7400
#   advertise:                     # default: this node's entry in members
#   dir:                           # default: raft below state_dir; wants a disk with a short fsync
#   election_timeout: [500ms, 1s]

# http:
#   listen: 0.0.0.0:8008
#   advertise:                     # default: the listen host, or the host in members
#   socket:                        # default: run/api.sock below state_dir; the command line on this host uses it
#   token_file:                    # default: api.token below state_dir; what others must show to change something

# postgresql:
#   listen: 0.0.0.0:5432           # several hosts: 10.0.0.11,127.0.0.1:5432
#   advertise:                     # default: the first listen host, or the host in members
#   data_dir:                      # default: data below state_dir
#   wal_dir:                       # default: in the data directory
#   bin_dir:                       # default: PATH, then the newest /usr/lib/postgresql/*/bin
#   socket_dir:                    # default: run below state_dir
#   parameters:                    # only what differs on this machine
#     effective_cache_size: 12GB

# initdb:                          # used once, by the node that makes the first data directory
#   locale: C.UTF-8
#   encoding: UTF8
#   wal-segsize: 16MB

# bootstrap:                       # used once, by `appliance bootstrap`
#   config:                        # first version of the configuration document
#     ttl: 6s
#     maximum_lag_on_failover: 1MB
#     postgresql:
#       parameters:
#         max_connections: 200
#   application:                   # a role and its database; the password is generated, see `appliance dsn`
#     user: app
#     database: app

# tags:
#   nofailover: false              # true: never becomes primary
#   failover_priority: 1           # of equals the highest becomes primary
#   nosync: false                  # true: no commit waits for it
#   sync_priority: 1               # with synchronous_mode on commits wait for the highest
#   noloadbalance: false           # true: not among /replica
#   zone: east                     # commits wait for another zone too, if there is one
#   custom: {site: berlin}         # names of your own

# log:
#   level: info                    # debug, info, warning, error
#   format: auto                   # json, pretty; auto: pretty on a terminal

# watchdog:
#   mode: off                      # automatic: used where it can be; required: without it this node is not made primary
#   device: /dev/watchdog
"""
