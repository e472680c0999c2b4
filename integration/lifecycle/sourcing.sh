cd "$1"

for env_file in ../profile.d/*; do
  if [ -f "$env_file" ]; then source "$env_file"; fi
done

for env_file in .profile.d/*; do
  if [ -f "$env_file" ]; then source "$env_file"; fi
done

if [ -f .profile ]; then
  source .profile
fi

shift

