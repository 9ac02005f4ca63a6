"""Files that are samples, wherever they lie: in a folder, in tar or Parquet files, on a hub."""

from functools import lru_cache
from typing import Any

from similitude.data import containers, folders, hugging_face
from similitude.data.files import Wanted
from similitude.data.openers import Found, Opener, find
from similitude.data.stores import is_url
from similitude.errors import UserError


def openers(wanted: Wanted) -> tuple[Opener, ...]:
    """By what a user may name them."""
    return (*hugging_face.openers(wanted), containers.opener(wanted), folders.opener(wanted))


def find_encoded(data: Any, wanted: Wanted) -> Found:
    """What is there of what is wanted.

    Raises:
        UserError: nothing that could have any, or as the opener.
    """
    if (found := find(data, openers(wanted))) is None:
        raise UserError(
            f"{data} has no {wanted.noun}s: give a folder of {' '.join(wanted.suffixes)}, tar or "
            "Parquet files of them, or a data set of Hugging Face"
        )
    return found


def have_texts(data: Any, wanted: Wanted) -> bool:
    """Whether something is written beside samples that do not lie in a folder."""
    return _have_texts_at(data, wanted) if is_url(data) else _have_texts(data, wanted)


@lru_cache(8)  # asked more than once, and each time all files would be looked for
def _have_texts_at(url: str, wanted: Wanted) -> bool:
    return _have_texts(url, wanted)


def _have_texts(data: Any, wanted: Wanted) -> bool:
    found = find(data, (*hugging_face.openers(wanted), containers.opener(wanted)))
    return found is not None and found.open(found.default).texts_of is not None


def are_wanted(data: Any, wanted: Wanted) -> bool:
    """Whether a look at what a user named says that it has what is wanted.

    That is most of the first files of a folder, most of the first samples in the first tar file, or
    the first column of samples that is declared.
    """
    looks = (hugging_face.declares, containers.begins_with, folders.is_mostly)
    return any(look(data, wanted) for look in looks)
