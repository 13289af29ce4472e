"""Tables and pages for people, read from run directories alone; nothing is measured here."""
