"""`_async` without `await`, made of it by `./run reference`: do not edit."""
