"""The networks that use the images: segmentation and classification, behind the protocol that generators have too."""
