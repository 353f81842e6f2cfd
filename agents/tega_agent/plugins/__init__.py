"""The plugins that ship with the agent."""
