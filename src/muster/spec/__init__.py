"""What the user gives, as types: recipe, settings, inventory, GPU products, pins, bundles.

    recipe              one YAML per model
    recipe_changes      what differs between two of them
    strategy            what it is made of: strategies, variants, features, what GPUs get besides
    shape               what the model's config.json says of its size
    sizes               how a strategy's ranks are counted, in numbers and words
    own_files           files that a recipe brings: chat templates and parser plugins
    model_config        a model's own config.json -> its shape, where its kind is known
    model_recipe        a model's own config.json -> a recipe to begin with
    vllm_catalogue      vLLM's own recipe catalogue -> a recipe
    catalogue_words     the catalogue's command lines -> flags, sizes, a served name
    catalogue_features  its features: which are on, and what variants make of them
    catalogue_releases  what it takes from nightlies, images and git, and which release holds it
    catalogue_packages  what its installations come to in a recipe
    catalogue_text      its values, read as what they should be
    git_source          `git URL@COMMIT`: files in somebody's repository
    yaml_text           YAML of strangers, read within bounds
    settings            every setting, its default and its bounds; flat names outside, groups inside
    settings_files      the files beside and above an inventory that its settings come from
    shared_settings     settings that all groups of an inventory must share
    inventory           pyinfra's inventory -> hosts and settings          knows pyinfra, as the next two do
    inventory_source    the file behind an inventory, and what pyinfra's own command has read with it
    inventory_groups    groups of an inventory that name their recipe: which one is meant, and its own data
    host_data           what pyinfra merged for each host -> the settings of their group
    host                a host as the inventory names it
    hardware            GPU products: memory, architecture, driver needs
    pins, listing       the commit of a model, and every file of it
    resolutions         the files of an engine, as they were first resolved
    bundles             what hosts without a network are given
    safe_text           what text may enter a unit, a path, an environment, a command line
    plain_secrets       is a value that everybody on the hosts can read a secret?
    secret_files        the user's files with secrets -> the one form that hosts get
    reserved_variables  environment variables that are not the user's to set
    versions            dotted versions as numbers
    validation          frozen types, and pydantic's errors as refusals

Imports nothing but `errors`, `resources`, and what the hosts' programs compute or read as well (`on_host`).
"""
