// Ready services for what is remembered: graphs, databases.

import type { CatalogEntry } from '../entry.ts'

export const DATA_ENTRIES: readonly CatalogEntry[] = [
  {
    name: 'memory',
    title: 'A graph of what was learned, kept in a file',
    description:
      'Stores entities, their relations and observations about them, finds them again, and keeps all of it in one ' +
      'file across sessions.',
    package: { registry: 'npm', name: '@modelcontextprotocol/server-memory', version: '2026.8.31', beside: [] },
    program: 'mcp-server-memory',
    arguments: [],
    settings: [
      {
        name: 'MEMORY_FILE_PATH',
        value: '/data/memory.jsonl',
        kind: 'default',
        about: 'Where the graph is kept. Its own default is a file beside the program, which cannot be written.',
      },
    ],
    secrets: [],
    systemPackages: [],
    network: { mode: 'none', why: 'It works on one local file.' },
    folders: [{ path: '/data', access: 'rw', about: 'The graph; it must be writable for user 1001.' }],
    isolation: {
      advice: 'shared',
      why: 'The whole graph is in one file that two processes would overwrite for each other.',
    },
    memoryMB: 58,
  },
  {
    name: 'sqlite',
    title: 'Query and change a SQLite database',
    description:
      'Lists tables, runs SELECT and writing statements on one database file, and collects insights in a memo. Its ' +
      'authors have archived it: use it with databases that may break.',
    package: { registry: 'pypi', name: 'mcp-server-sqlite', version: '2025.4.25', beside: ['mcp==1.30.0'] },
    program: 'mcp-server-sqlite',
    arguments: [
      { text: '--db-path' },
      { text: '/data/main.db', about: 'The database file; it is made when it does not exist.' },
    ],
    settings: [],
    secrets: [],
    systemPackages: [],
    network: { mode: 'none', why: 'The database is a local file.' },
    folders: [{ path: '/data', access: 'rw', about: 'The database; it must be writable for user 1001.' }],
    isolation: { advice: 'client', why: 'The memo of insights lives in the process and is seen by all who share it.' },
    memoryMB: 60,
  },
  {
    name: 'duckdb',
    title: 'Analyse CSV, Parquet and DuckDB files with SQL',
    description:
      'Runs analytical SQL in the process itself, over its own tables or over files below /data. As it stands the ' +
      'tables are in memory and end with the session; name a file instead to keep them.',
    package: {
      registry: 'pypi',
      name: 'mcp-server-motherduck',
      version: '1.1.0',
      beside: ['fastmcp==4.1.2', 'mcp==2.3.0'],
    },
    program: 'mcp-server-motherduck',
    arguments: [
      { text: '--db-path' },
      { text: ':memory:', about: 'Or a file such as /data/main.duckdb, which one process at a time can write.' },
      { text: '--read-write', about: 'Needed for a database in memory; leave it out for a file that is only read.' },
    ],
    settings: [],
    secrets: [],
    systemPackages: [],
    network: { mode: 'none', why: 'Queries run in the process. Files behind URLs would need bridge.' },
    folders: [{ path: '/data', access: 'ro', about: 'The files to query.' }],
    isolation: { advice: 'session', why: 'Tables in memory belong to the process; with a database file, use shared.' },
    memoryMB: 126,
  },
  {
    name: 'postgres',
    title: 'Query a PostgreSQL database',
    description:
      'Explores schemas and runs SQL on a PostgreSQL database (other DSNs reach MySQL, MariaDB and SQL Server). It ' +
      'connects when it starts and ends when it cannot. It runs whatever the database lets its user do: give it a ' +
      'user that may only read.',
    package: { registry: 'npm', name: '@bytebase/dbhub', version: '1.4.0', beside: [] },
    program: 'dbhub',
    arguments: [{ text: '--transport' }, { text: 'stdio' }],
    settings: [],
    secrets: [{ name: 'DSN', about: 'postgres://user:password@host:5432/database?sslmode=require', required: true }],
    systemPackages: [],
    network: { mode: 'bridge', why: 'It connects to the database.' },
    folders: [],
    isolation: { advice: 'shared', why: 'Each call is one statement of its own, over a pool of connections.' },
    memoryMB: 113,
  },
  {
    name: 'redis',
    title: 'Use a Redis server',
    description:
      'Reads and writes strings, hashes, lists, sets, sorted sets, streams and JSON of a Redis server, and searches ' +
      'its vector indexes. It starts without the server; calls then fail.',
    package: { registry: 'pypi', name: 'redis-mcp-server', version: '0.5.1', beside: ['mcp==1.30.0'] },
    program: 'redis-mcp-server',
    arguments: [],
    settings: [
      { name: 'REDIS_HOST', value: 'redis.example.net', kind: 'example', about: 'The host of the Redis server.' },
    ],
    secrets: [{ name: 'REDIS_PWD', about: 'The password of the Redis server, if it has one.', required: false }],
    systemPackages: [],
    network: { mode: 'bridge', why: 'It connects to the Redis server.' },
    folders: [],
    isolation: { advice: 'shared', why: 'Each call is one command of its own.' },
    memoryMB: 103,
  },
]
