"""Where a problem is posed."""
