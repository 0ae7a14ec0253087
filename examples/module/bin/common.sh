# Shared by the scripts beside it.
say() {
  echo "demo: $1"
}
