"""The one LightningModule, its schedules and callbacks."""
