"""The program of a device, and the plugins that it ships."""
