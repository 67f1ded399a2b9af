"""The storages of Iceberg tables: pyiceberg's own way to them, and ours to those that it does not know.

pyiceberg imports this module by its name; nothing else does, since pyiceberg may not be installed.
"""

import os

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO

from connectors.profiles.storage.filesystems import Address, StorageOptions, open_filesystem, read_endpoint

_SCHEMES_OF_COS = ("cosn", "cos")


class LakeFileIO(PyArrowFileIO):
    """Writers on COS put `cosn://` into a table's metadata. Everything else is pyiceberg's own."""

    def _initialize_fs(self, scheme: str, netloc: str | None = None) -> fs.FileSystem:
        if scheme not in _SCHEMES_OF_COS:
            if self._is_cos("s3.endpoint"):
                self.properties = {"s3.force-virtual-addressing": "true", **self.properties}
            return super()._initialize_fs(scheme, netloc)
        options = StorageOptions(self.properties.get("s3.endpoint"), self.properties.get("s3.region"))
        return open_filesystem(Address(scheme, netloc or "", ""), options, os.environ)

    def _is_cos(self, key: str) -> bool:
        endpoint = self.properties.get(key)
        return endpoint is not None and read_endpoint(endpoint)[1].partition(":")[0].endswith(".myqcloud.com")
