"""The `paliflow` command line. The console script and `__main__` alone use it."""
