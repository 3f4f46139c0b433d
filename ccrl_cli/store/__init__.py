"""Files that must survive a crash: completions, run directories, locks."""
