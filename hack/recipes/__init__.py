"""The recipes: their table, their small forms and the record of their dry runs.

python -m hack.recipes table [--check]      recipes/README.md, from the recipes and their plans
python -m hack.recipes dry-run [NAME ...]   a step of each at its true mesh; recipes/dry-run.json
"""
