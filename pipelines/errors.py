"""What stops a sync, as exceptions whose text names the place and the remedy.

The tree is grouped by who mends what:

    SyncError
    ├── ConfigurationError   the sync's YAML, or a source that does not fit it; nothing was sent
    ├── ValuePolicyError     a value that the YAML says must stop the run (`too_long: fail`); nothing was sent
    ├── EmptySourceError     `departed: remove` and no valid account in the source; nothing was sent
    ├── DataFolderError      the data folder: full, not writable, damaged, or made for another target
    ├── EngineError          the engine gave up: memory, or a fault that no other class names
    ├── AppBusyError         another run holds the app; start again when it has ended
    └── PushStoppedError     the push ended early; what was not sent is in the failed rows, the next run goes on

No text here holds an account, a value, a signature or a key.
"""

from connectors.object_store.faults import ObjectStoreError
from connectors.profiles.errors import ProfilesError
from connectors.tencent_push.errors import TencentPushError


class SyncError(Exception):
    """Everything that this package raises on purpose."""


class ConfigurationError(SyncError):
    """The YAML, or a source that does not fit it. Nothing was sent."""


class ValuePolicyError(SyncError):
    """A value met a policy that says to stop. Nothing was sent."""


class EmptySourceError(SyncError):
    """A source without any valid account would clear all that were acknowledged. Nothing was sent."""


class DataFolderError(SyncError):
    """The data folder cannot be used as it is. What was acknowledged so far stays recorded."""


class EngineError(SyncError):
    """The engine could not finish a step. Nothing of that step counts."""


class AppBusyError(SyncError):
    """Another run pushes to the same app. Nothing was sent."""


class PushStoppedError(SyncError):
    """The push ended early. Every row has its outcome in the failed rows."""


EXPECTED_ERRORS: tuple[type[Exception], ...] = (SyncError, ProfilesError, TencentPushError, ObjectStoreError)
