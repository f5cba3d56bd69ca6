"""What the installed vLLM is asked about a command line, as a script for the engine's own Python.

Reads {argvs, decided, dests, files} from standard input and prints one JSON list: an error for each command line, or
"". It makes what `vllm serve` and `vllm preload` make before they start processes: the parsed arguments, their own
validation, the tool and reasoning parsers, and the model's configuration where its files are on the host. Nothing is
started, no GPU is opened.
"""

from __future__ import annotations

SCRIPT = r"""
import contextlib, importlib, io, json, os, sys, tempfile
question = json.load(sys.stdin)
placed = {}
for path, text in (question.get("files") or {}).items():
    # Not on the host yet, or with an older text: read from a copy, and named as planned in what is said.
    placed[path] = os.path.join(tempfile.mkdtemp(), os.path.basename(path))
    with open(placed[path], "w", encoding="utf-8") as file:
        file.write(text)


def build():
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    serve = importlib.import_module("vllm.entrypoints.cli.serve")
    parser = FlexibleArgumentParser(prog="vllm")
    subparsers = parser.add_subparsers(dest="subparser", required=True)
    modules = [serve]
    with contextlib.suppress(ImportError):  # vLLM before 0.33 keeps no weights
        modules.append(importlib.import_module("vllm.entrypoints.cli.preload"))
    commands = {command.name: command for module in modules for command in module.cmd_init()}
    for command in commands.values():
        command.subparser_init(subparsers)
    return parser, commands


PARSER, COMMANDS = build()


def read(argv):
    argv = [placed.get(word, word) for word in argv]
    sys.argv = list(argv)
    args = PARSER.parse_args(argv[1:])
    return args, COMMANDS[args.subparser]


def contradiction(args, decided):
    # Whatever spelling, abbreviation or file a flag came by, this is what the parser made of it.
    planned, _ = read(decided)
    for dest in question.get("dests", ()):
        mine, theirs = getattr(planned, dest, None), getattr(args, dest, None)
        if mine != theirs:
            flag = "--" + dest.replace("_", "-")
            return "%s is %r, and the plan decides %r" % (flag, theirs, mine)
    return ""


def servers(args):
    # What the API server refuses after the parser has passed: unknown tool and reasoning parsers, plugins that fail.
    validate = None
    for name in ("vllm.entrypoints.common.cli_args", "vllm.entrypoints.launchers.launcher",
                 "vllm.entrypoints.openai.api_server"):
        try:
            validate = getattr(importlib.import_module(name), "validate_api_server_args", None)
        except ImportError:
            continue
        if validate:
            break
    plugins = ((("tool_parser_plugin", "import_tool_parser"), ("vllm.tool_parsers", "ToolParserManager")),
               (("reasoning_parser_plugin", "import_reasoning_parser"), ("vllm.reasoning", "ReasoningParserManager")))
    for (argument, method), (module, manager) in plugins:
        path = getattr(args, argument, None)
        if path:
            if not os.path.isfile(path):
                raise FileNotFoundError("--%s %s: no such file on this host" % (argument.replace("_", "-"), path))
            try:
                managers = importlib.import_module(module)
            except ImportError:
                continue
            getattr(getattr(managers, manager), method)(path)
    if validate:
        validate(args)
    chosen = getattr(args, "reasoning_parser", None)
    if chosen:
        known = importlib.import_module("vllm.reasoning").ReasoningParserManager
        if hasattr(known, "list_registered") and chosen not in known.list_registered():
            raise ValueError("--reasoning-parser %s: this vLLM has %s" % (chosen, ", ".join(known.list_registered())))
    backend = getattr(args, "attention_backend", None)
    if isinstance(backend, str):
        try:
            names = importlib.import_module("vllm.v1.attention.backends.registry").AttentionBackendEnum.__members__
        except (ImportError, AttributeError):
            return
        if backend.upper() not in names:
            raise ValueError("--attention-backend %s: this vLLM has %s" % (backend, ", ".join(names)))


def model_is_here(model):
    if os.path.isdir(model):
        return os.path.isfile(os.path.join(model, "config.json"))
    try:
        from huggingface_hub import try_to_load_from_cache
        return isinstance(try_to_load_from_cache(model, "config.json"), str)
    except Exception:
        return False


def configure(args):
    # The model's own configuration against the flags: context, quantisation, architecture. Needs config.json alone.
    model = getattr(args, "model_tag", None) or getattr(args, "model", None)
    if not model or not model_is_here(model):
        return
    from vllm.engine.arg_utils import AsyncEngineArgs
    registry = importlib.import_module("vllm.model_executor.models.registry")
    if hasattr(registry, "_run_in_subprocess"):
        # vLLM looks at a model's class in a process of its own, which imports everything again, so that the one that
        # serves opens no GPU by it. This one serves nothing and ends here.
        registry._run_in_subprocess = lambda look: look()
    if getattr(args, "model_tag", None):
        args.model = args.model_tag
    AsyncEngineArgs.from_cli_args(args).create_model_config()


def words(error):
    # pydantic's own frame around a message tells a user nothing.
    text = str(error)
    if "validation error" in text.split("\n", 1)[0]:
        lines = [line.strip() for line in text.split("\n")[1:] if line.strip()]
        text = next((line for line in lines if "Value error" in line or "Assertion" in line), text)
        text = text.split(" [type=", 1)[0]
    return "%s: %s" % (type(error).__name__, text[:2000])


def ask(argv, decided):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            args, command = read(argv)
            command.validate(args)
            wrong = contradiction(args, decided) if decided else ""
            if wrong:
                return wrong
            if args.subparser == "serve":
                servers(args)
            configure(args)
    except SystemExit as end:
        lines = [line for line in printed.getvalue().splitlines() if "error:" in line]
        return "" if not end.code else (lines or printed.getvalue().splitlines() or ["refused"])[-1]
    except Exception as error:
        return words(error)
    return ""


argvs, decided = question["argvs"], question.get("decided") or []
errors = [ask(argv, decided[at] if at < len(decided) else []) for at, argv in enumerate(argvs)]
for path, copy in placed.items():
    errors = [error.replace(copy, path) for error in errors]
print("\n" + json.dumps(errors))
"""
