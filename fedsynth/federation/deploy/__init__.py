"""From one machine to real hospitals: certificates, keys, folders, the server's guarded door, and what starts it."""
