from collections.abc import Callable
from typing import Any

def packb(o: object, *, use_bin_type: bool = ...) -> bytes: ...
def unpackb(
    packed: bytes | memoryview,
    *,
    raw: bool = ...,
    strict_map_key: bool = ...,
    object_hook: Callable[[dict[Any, Any]], object] | None = ...,
    max_str_len: int = ...,
    max_bin_len: int = ...,
    max_array_len: int = ...,
    max_map_len: int = ...,
    max_ext_len: int = ...,
) -> Any: ...
