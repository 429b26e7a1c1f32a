"""Every call, written once: `./run reference` makes `_sync` of this folder, without `await`."""
