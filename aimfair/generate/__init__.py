"""From prompts to faces on disk: text-to-image pipelines loaded, images drawn and edited, the tiny model trained."""
