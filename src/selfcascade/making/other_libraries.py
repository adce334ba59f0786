"""Other libraries' output."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Turns off other libraries' progress bars and warnings, which would mix with the program's own output."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("ignore", ".*local_dir_use_symlinks")  # diffusers says it to huggingface_hub, which minds
