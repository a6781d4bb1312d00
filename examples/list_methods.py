"""List the methods with what they need, and all options of one of them."""

from napari_semiseg.engine.describe import describe_methods

methods = describe_methods()
for method in methods:
    print(f"{method['name']:<12} labels {method['labels']:<8} {method['title']}")

for name, option in methods[0]["options"]["properties"].items():
    print(f"  --set {name}={option.get('default')}   {option['description']}")
