// The link unit has no code of its own: its linker settings make the shared library.
