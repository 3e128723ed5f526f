"""One Hikvision terminal over ISAPI."""
