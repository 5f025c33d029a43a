"""What users say of answers: checked by token, made durable, looked up."""
