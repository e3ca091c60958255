"""Which public methods the SDK has, and which of them the tests used.

The list comes from the package by reflection. Every public attribute of the classes below is
wrapped by a descriptor that notes its use when the line that uses it is in a test file; what the
SDK calls by itself does not count.
"""

import inspect
import os
import sys

import e2b
from e2b.sandbox.utils import class_method_variant
from e2b.sandbox_async.commands import command as async_command
from e2b.sandbox_async.commands import command_handle as async_command_handle
from e2b.sandbox_async.commands import command_input_handle as async_command_input_handle
from e2b.sandbox_async.commands import pty as async_pty
from e2b.sandbox_async import git as async_git
from e2b.sandbox_async import paginator as async_paginator
from e2b.sandbox_async.filesystem import filesystem as async_filesystem
from e2b.sandbox_async.filesystem import watch_handle as async_watch_handle
from e2b.sandbox_sync import git, paginator
from e2b.sandbox_sync.commands import command, command_handle, pty
from e2b.sandbox_sync.filesystem import filesystem, watch_handle
from e2b.template import main as template, readycmd

CLASSES = {
    "Sandbox": e2b.Sandbox,
    "Commands": command.Commands,
    "CommandHandle": command_handle.CommandHandle,
    "Pty": pty.Pty,
    "Filesystem": filesystem.Filesystem,
    "WatchHandle": watch_handle.WatchHandle,
    "Git": git.Git,
    "SandboxPaginator": paginator.SandboxPaginator,
    "SnapshotPaginator": paginator.SnapshotPaginator,
    "Template": e2b.Template,
    "TemplateBuilder": template.TemplateBuilder,
    "ReadyCmd": readycmd.ReadyCmd,
    "AsyncSandbox": e2b.AsyncSandbox,
    "AsyncCommands": async_command.Commands,
    "AsyncCommandHandle": async_command_handle.AsyncCommandHandle,
    "AsyncCommandInputHandle": async_command_input_handle.AsyncCommandInputHandle,
    "AsyncPty": async_pty.Pty,
    "AsyncFilesystem": async_filesystem.Filesystem,
    "AsyncWatchHandle": async_watch_handle.AsyncWatchHandle,
    "AsyncGit": async_git.Git,
    "AsyncSandboxPaginator": async_paginator.AsyncSandboxPaginator,
    "AsyncSnapshotPaginator": async_paginator.AsyncSnapshotPaginator,
    "AsyncTemplate": e2b.AsyncTemplate,
}

# Public methods that no test calls yet, with the title of the issue that brings them.
NOT_COVERED_YET = {}

TESTS = os.path.dirname(os.path.abspath(__file__)) + os.sep
METHODS = set()
CALLED = set()


class Noted:
    """Passes an attribute on and notes who asks for it."""

    def __init__(self, key, inner):
        self.key = key
        self.inner = inner

    def __get__(self, instance, owner=None):
        caller = sys._getframe(1).f_code.co_filename
        if caller.startswith(TESTS + "test_") or caller.startswith(TESTS + "conftest"):
            by_id = instance is None and isinstance(self.inner, class_method_variant)
            CALLED.add(f"{self.key} (by id)" if by_id else self.key)
        return self.inner.__get__(instance, owner)


class NotedProperty(Noted):
    """A property stays one: instances must not shadow it."""

    def __set__(self, instance, value):
        self.inner.__set__(instance, value)


def watch():
    """Wraps all public attributes that can be used; plain constants are left alone."""
    for label, cls in CLASSES.items():
        for name, _ in inspect.getmembers(cls):
            inner = inspect.getattr_static(cls, name)
            if name.startswith("_") or not hasattr(inner, "__get__"):
                continue
            key = f"{label}.{name}"
            METHODS.add(key)
            if isinstance(inner, class_method_variant):
                METHODS.add(f"{key} (by id)")
            kind = NotedProperty if isinstance(inner, property) else Noted
            setattr(cls, name, kind(key, inner))
