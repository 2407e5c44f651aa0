"""Importing this module keeps Prefect and DVC from phoning home; import it before prefect.

Both read the environment when they are imported, so this cannot wait for a function call. Whoever set a variable
before keeps their value.
"""

from __future__ import annotations

import os

_OFF = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
}

for _name, _value in _OFF.items():
    os.environ.setdefault(_name, _value)
