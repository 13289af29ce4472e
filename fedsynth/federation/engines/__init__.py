"""Where the two apps run: in this process (`local`), on Ray, or between real machines."""
