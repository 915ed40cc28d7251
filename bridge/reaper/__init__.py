"""The reaper of the bridge process: rows that tell what is not so, found and mended."""
