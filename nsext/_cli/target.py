"""What ``nsext enter`` enters."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELD, NAMED_NETS = "/run/nsext", "/run/netns"


def held(name: str) -> dict[str, str]:
    """{kind: path} of what ``nsext hold`` or ip-netns(8) keeps under a name."""
    places = {}
    try:
        for kind in sorted(os.listdir(f"{HELD}/{name}")):
            places[kind] = f"{HELD}/{name}/{kind}"
    except (FileNotFoundError, NotADirectoryError):
        pass
    if os.path.exists(f"{NAMED_NETS}/{name}"):
        places["net"] = f"{NAMED_NETS}/{name}"
    return places


def joins(target: str, only: str | None) -> Any:
    """join= for a process id, a path or a name.  Raises ValueError."""
    where: int | str
    if target.isdecimal():
        where = int(target)
    elif "/" in target:
        where = target
    else:
        places = held(target)
        if not places:
            raise ValueError(f"{target!r} is no process id, no path, and no name that hold made")
        if only is None:
            return places
        from .._flags import kind_names, parse_kinds

        wanted = kind_names(parse_kinds(only)).split()
        missing = [kind for kind in wanted if kind not in places]
        if missing:
            raise ValueError(f"{target} holds {', '.join(places)}, and no {' '.join(missing)}")
        return {kind: places[kind] for kind in wanted}
    return where if only is None else {only: where}
