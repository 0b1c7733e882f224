"""A client on the Python SDK, version 1 or 2: does the scenarios of scenarios.ts.

Reads a list of targets, [{"client", "era", "url"}, …], from stdin; for each prints a JSON line with the
revision and one for each scenario: {"url", "scenario", "seen"} or {"url", "scenario", "failed"}.
"""

import json
import sys
import traceback
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

IS_V1 = version("mcp").startswith("1.")
if IS_V1:
    import httpx
    from mcp.shared.exceptions import McpError as MCPError
    from pydantic import AnyUrl as Uri
else:
    import httpx2 as httpx
    from mcp import Client, MCPError

    Uri = str

LOG_LEVEL = "io.modelcontextprotocol/logLevel"
WATCHED = "test://watched-resource"
# A wait for what comes by itself.
PATIENCE_S = 15
USER = {
    "Who?": {"username": "ann", "email": "ann@example.com"},
    "Step 1: What is your name?": {"name": "ann"},
    "Step 2: What is your favorite color?": {"color": "green"},
}


class Peer:
    """A connected client, and what it was told and asked, in order."""

    def __init__(self):
        self.client = None
        self.revision = ""
        self.logs, self.updated, self.asked = [], [], []
        self.tool_changes = 0
        self.heard = anyio.Event()
        # In the modern era the log level goes with each request.
        self.meta = None
        # Of the call under way.
        self.progress_token = None

    def told(self):
        self.heard.set()
        self.heard = anyio.Event()

    async def until(self, condition, what):
        with anyio.move_on_after(PATIENCE_S):
            while not condition():
                await self.heard.wait()
        if not condition():
            raise RuntimeError(what)

    # What the SDK calls.

    async def on_log(self, params):
        self.logs.append(params.level)
        self.told()

    async def on_message(self, message):
        notification = getattr(message, "root", message)
        if isinstance(notification, types.ResourceUpdatedNotification):
            self.updated.append(str(notification.params.uri))
        if isinstance(notification, types.ToolListChangedNotification):
            self.tool_changes += 1
        if IS_V1 and isinstance(notification, types.ProgressNotification):
            self.progress_token = notification.params.progressToken
        self.told()

    async def on_sampling(self, _context, params):
        self.asked.append("\n".join(message.content.text for message in params.messages))
        answer = types.TextContent(type="text", text="Roses are red.")
        return types.CreateMessageResult(role="assistant", content=answer, model="test")

    async def on_elicitation(self, _context, params):
        self.asked.append(params.message)
        content = USER.get(params.message)
        return types.ElicitResult(action="accept" if content else "decline", content=content)

    async def on_roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri="file:///one", name="one")])

    # What the scenarios do.

    async def call(self, tool, args=None, on_progress=None):
        async def told(progress, _total, _message):
            on_progress(progress)

        more = {"meta": self.meta} if self.meta else {}
        callback = told if on_progress else None
        result = await self.client.call_tool(tool, args or {}, progress_callback=callback, **more)
        return "\n".join(getattr(one, "text", "") for one in result.content)

    async def read(self, uri):
        return (await self.client.read_resource(Uri(uri))).contents[0].text

    @asynccontextmanager
    async def subscribed(self, uri):
        """Subscribes to a resource while in it."""
        if self.revision != "2026-07-28":
            await self.client.subscribe_resource(Uri(uri))
            yield
            await self.client.unsubscribe_resource(Uri(uri))
            return
        async with self.client.listen(resource_subscriptions=[uri]):
            yield

    @asynccontextmanager
    async def watching_tools(self):
        if self.revision != "2026-07-28":
            yield
            return
        async with self.client.listen(tools_list_changed=True):
            yield


@asynccontextmanager
async def connected(target, asked):
    peer = Peer()
    callbacks = {"logging_callback": peer.on_log, "message_handler": peer.on_message}
    if asked:
        callbacks["sampling_callback"] = peer.on_sampling
        callbacks["elicitation_callback"] = peer.on_elicitation
        callbacks["list_roots_callback"] = peer.on_roots
    headers = {"x-mcp-client": target["client"]}
    async with httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(30, read=300)) as http:
        transport = streamable_http_client(target["url"], http_client=http)
        if IS_V1:
            async with transport as (read, write, _), ClientSession(read, write, **callbacks) as session:
                peer.revision = str((await session.initialize()).protocolVersion)
                peer.client = session
                yield peer
        else:
            mode = "auto" if target["era"] == "modern" else "legacy"
            async with Client(transport, mode=mode, **callbacks) as client:
                peer.revision = client.protocol_version
                peer.client = client
                yield peer


async def lists(peer, _target):
    templates = (await peer.client.list_resource_templates()).model_dump(by_alias=True)["resourceTemplates"]
    return {
        "tools": [tool.name for tool in (await peer.client.list_tools()).tools],
        "prompts": [prompt.name for prompt in (await peer.client.list_prompts()).prompts],
        "resources": [str(resource.uri) for resource in (await peer.client.list_resources()).resources],
        "templates": [template["uriTemplate"] for template in templates],
    }


async def call(peer, _target):
    prompt = await peer.client.get_prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "zwei ☂"})
    seen = {
        "text": await peer.call("test_simple_text"),
        "failure": await peer.call("test_error_handling"),
        "argument": await peer.call("test_header_parameter", {"region": "Zürich ✓"}),
        "prompt": prompt.messages[0].content.text,
        "resource": await peer.read("test://static-text"),
        "unknownTool": None,
    }
    try:
        await peer.call("test_unknown")
    except MCPError as error:
        seen["unknownTool"] = error.error.code
    return seen


def with_progress(tool):
    async def scenario(peer, _target):
        progress = []
        return {"text": await peer.call(tool, on_progress=progress.append), "progress": progress}

    return scenario


async def cancel(peer, target):
    key = " ".join(target.values())
    text = None
    if IS_V1:
        await cancel_by_hand(peer, key)
    else:
        with anyio.CancelScope() as scope:
            text = await peer.call("test_wait_for_cancel", {"key": key}, on_progress=lambda _: scope.cancel())
    return {"text": text, "server": await peer.call("test_cancelled", {"key": key})}


async def cancel_by_hand(peer, key):
    """Version 1 tells nobody when a call is given up: who uses it has to. The progress token is the request's id."""
    peer.progress_token = None
    async with anyio.create_task_group() as group:
        group.start_soon(peer.call, "test_wait_for_cancel", {"key": key}, lambda _: None)
        await peer.until(lambda: peer.progress_token is not None, "no progress")
        params = types.CancelledNotificationParams(requestId=peer.progress_token)
        notification = types.CancelledNotification(params=params)
        await peer.client.send_notification(types.ClientNotification(notification))
        group.cancel_scope.cancel()


async def subscriptions(peer, _target):
    before = await peer.read(WATCHED)
    async with peer.watching_tools():
        async with peer.subscribed(WATCHED):
            await peer.call("test_trigger_resource_change")
            await peer.until(lambda: peer.updated, "no update")
            changed = await peer.read(WATCHED) != before
        await peer.call("test_trigger_resource_change")
        # What is told later shows that nothing more comes of what was before it.
        await peer.call("test_trigger_tool_change")
        await peer.until(lambda: peer.tool_changes, "no change of the list of tools")
        seen = {"updated": list(peer.updated), "changed": changed, "toolChanges": peer.tool_changes}
    await peer.call("test_trigger_tool_change")
    return seen


async def log_level(peer, _target):
    seen = {}
    for level in ("warning", "debug"):
        peer.logs.clear()
        if peer.revision == "2026-07-28":
            peer.meta = {LOG_LEVEL: level}
        else:
            await peer.client.set_logging_level(level)
        await peer.call("test_log_levels")
        await peer.until(lambda: "emergency" in peer.logs, "no log of the highest level")
        seen[level] = list(peer.logs)
    return seen


async def sampling(peer, _target):
    text = await peer.call("test_sampling", {"prompt": "A poem, please"})
    return {"text": text, "asked": peer.asked}


async def elicitation(peer, _target):
    peer.asked = []
    return {
        "accepted": await peer.call("test_elicitation", {"message": "Who?"}),
        "declined": await peer.call("test_elicitation", {"message": "Really?"}),
        "rounds": await peer.call("test_input_required_result_multi_round"),
        "asked": peer.asked,
    }


async def roots(peer, _target):
    return {"text": await peer.call("test_input_required_result_list_roots")}


PLAIN = {
    "list": lists,
    "call": call,
    "progress": with_progress("test_tool_with_progress"),
    "cancel": cancel,
    "subscriptions": subscriptions,
    "log level": log_level,
    # The last one: it loses the connections.
    "resume": with_progress("test_resumable"),
}
# A client that can be asked is another one to a legacy server, so these have a connection of their own.
ASKED = {"sampling": sampling, "elicitation": elicitation, "roots": roots}


def say(**line):
    print(json.dumps(line), flush=True)


async def main():
    for target in json.load(sys.stdin):
        for steps, asked in ((PLAIN, False), (ASKED, True)):
            async with connected(target, asked) as peer:
                say(url=target["url"], revision=peer.revision)
                for name, step in steps.items():
                    try:
                        say(url=target["url"], scenario=name, seen=await step(peer, target))
                    except Exception as error:
                        traceback.print_exc()
                        say(url=target["url"], scenario=name, failed=f"{type(error).__name__}: {error}")


anyio.run(main)
