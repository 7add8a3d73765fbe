"""Pictures of panoptic maps: arrays in, arrays out; writing files is left to callers."""
