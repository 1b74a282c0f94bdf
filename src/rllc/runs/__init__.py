"""The corridor: experiment file to plan to execution; the only code that carries values between rooms, devices and disk."""
