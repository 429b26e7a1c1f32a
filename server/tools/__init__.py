"""The commands of `overtone` that read and write adapter files, without a server. Imports base."""
