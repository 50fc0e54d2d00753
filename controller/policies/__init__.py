"""The rules that choose an endpoint, as pure functions over arrays; used live by the picker and offline by benches."""
