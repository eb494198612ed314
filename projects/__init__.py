"""Model families; imported from the repository root as ``projects.<Name>``."""
