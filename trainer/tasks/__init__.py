"""What is learned of a record, by task: text, classes, numbers, images."""
