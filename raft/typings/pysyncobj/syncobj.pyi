from collections.abc import Callable, Iterable

from .config import SyncObjConf
from .node import Node
from .poller import Poller
from .transport import Transport

createJournal: Callable[[object], object]
monotonicTime: Callable[[], float]

class SyncObj:
    _poller: Poller
    def __init__(
        self,
        selfNode: Node,
        otherNodes: Iterable[Node],
        conf: SyncObjConf,
        *,
        transport: Transport,
    ) -> None: ...
    def doTick(self, timeToWait: float) -> None: ...
    def _checkCommandsToApply(self) -> None: ...
