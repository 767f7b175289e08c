"""The order of the stages, from a request of the plugin to a plan."""
