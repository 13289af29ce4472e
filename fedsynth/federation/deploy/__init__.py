"""From one machine to real hospitals: certificates, keys, folders, the server's proxy, and what starts it."""
