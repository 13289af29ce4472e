"""Writing an image set image by image, so that an import of any size needs the memory of one image."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from fedsynth import atomic_files
from fedsynth.config import save_toml
from fedsynth.data.format import COLUMNS, HEADER, IMAGES, MASKS, TABLE, Header, check_table
from fedsynth.errors import ImageSetError


class GrowingArray:
    """A .npy file that grows by one item at a time; its true length is written when it is closed."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.shape, self.dtype, self.count = shape, np.dtype(dtype), 0
        self._file: IO[bytes] = path.open("wb")
        self._write_header()
        self._start = self._file.tell()

    def append(self, item: NDArray[Any]) -> None:
        """Add one item of the declared shape and kind."""
        if item.shape != self.shape or item.dtype != self.dtype:
            found = f"{item.shape} {item.dtype}"
            raise ImageSetError(f"an image must be {self.shape} {self.dtype}", value=found)
        self._file.write(np.ascontiguousarray(item).data)
        self.count += 1

    def close(self) -> None:
        """Write the true length and close. numpy leaves room in the header for the first axis to grow."""
        if self._file.closed:
            return
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._start:
            raise ImageSetError("the array's header outgrew its place")
        self._file.close()

    def abandon(self) -> None:
        """Close without finishing; the caller removes the file, so what a full disk refuses no longer matters."""
        with suppress(OSError):
            self._file.close()

    def _write_header(self) -> None:
        shape = (self.count, *self.shape)
        described = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, described)


class ImageSetWriter:
    """Use as `with ImageSetWriter(folder, shape, dtype, masks=True) as out:`, append images, then `finish`.

    The folder appears under its name only after `finish`; leaving the block in any other way removes what was written.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, ...], dtype: DTypeLike, *, masks: bool, overwrite: bool = False
    ) -> None:
        self._folder = atomic_files.new_folder(folder, marker=HEADER, overwrite=overwrite)
        self._shape, self._dtype, self._with_masks = shape, dtype, masks
        self._rows: list[dict[str, str]] = []
        self._finished = False

    def __enter__(self) -> "ImageSetWriter":
        self._working = self._folder.__enter__()
        self._images = GrowingArray(self._working / IMAGES, self._shape, self._dtype)
        self._masks = GrowingArray(self._working / MASKS, self._shape[1:], np.uint8) if self._with_masks else None
        return self

    def append(self, row: dict[str, str], image: NDArray[Any], mask: NDArray[Any] | None) -> None:
        """Add one image (channels, height, width[, depth]), its mask and its row of `cases.csv`."""
        self.append_arrays(image, mask)
        self._rows.append(row)

    def append_arrays(self, image: NDArray[Any], mask: NDArray[Any] | None) -> None:
        """Add one image and mask; the table is then given whole to `finish`."""
        self._images.append(np.asarray(image))
        if self._masks is not None:
            if mask is None:
                raise ImageSetError("an image has no mask where masks are expected")
            self._masks.append(np.asarray(mask))

    def cases(self) -> pd.DataFrame:
        """The rows appended so far, as the table of the format."""
        return pd.DataFrame(self._rows, columns=list(COLUMNS), dtype=str).fillna("")

    def finish(self, header: Header, cases: pd.DataFrame | None = None) -> None:
        """Write the header and the table (the appended rows if none is given); the set is whole after this."""
        table = self.cases() if cases is None else cases
        if len(table) != self._images.count:
            raise ImageSetError(f"{self._images.count} images were written and the table has {len(table)} rows")
        check_table(header, table, None)
        self._images.close()
        if self._masks is not None:
            self._masks.close()
        atomic_files.write_text(self._working / TABLE, table[list(COLUMNS)].to_csv(index=False, lineterminator="\n"))
        save_toml(self._working / HEADER, header)
        self._finished = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._images.abandon()
        if self._masks is not None:
            self._masks.abandon()
        if kind is None and not self._finished:
            error = ImageSetError("the image set was not finished")
            self._folder.__exit__(type(error), error, None)
            raise error
        self._folder.__exit__(kind, error, trace)
