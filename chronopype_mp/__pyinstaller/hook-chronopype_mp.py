"""Read by PyInstaller: it does not see modules that are imported by their names."""

hiddenimports = [
    "chronopype_mp.launchers.preload",
    "chronopype_mp.worker.entry",
    "chronopype_mp.worker.inline_entry",
]
