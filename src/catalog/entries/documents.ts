// Ready services for files and office documents.

import type { CatalogEntry, Folder } from '../entry.ts'

const OFFLINE = { mode: 'none', why: 'It works on local files only.' } as const
const DOCUMENTS: Folder = { path: '/data', access: 'rw', about: 'The documents; it must be writable for user 1001.' }
const FILES_ARE_SHARED = 'It keeps nothing between two calls; what clients share is the folder, so give each its own.'

export const DOCUMENTS_ENTRIES: readonly CatalogEntry[] = [
  {
    name: 'filesystem',
    title: 'Read and write the files of a folder',
    description:
      'Reads, writes, edits, moves and searches files below the folders that it is given, and nothing outside them. ' +
      'Mount the folder with :ro when the client is only to read.',
    package: { registry: 'npm', name: '@modelcontextprotocol/server-filesystem', version: '2026.8.31', beside: [] },
    program: 'mcp-server-filesystem',
    arguments: [{ text: '/data', about: 'The folders it may touch, one argument each.' }],
    settings: [],
    secrets: [],
    systemPackages: [],
    network: OFFLINE,
    folders: [{ path: '/data', access: 'rw', about: 'The files; writable for user 1001 unless mounted with :ro.' }],
    isolation: {
      advice: 'session',
      why: 'A client that declares roots replaces the folders of the process, for everyone who shares it.',
    },
    memoryMB: 59,
  },
  {
    name: 'text-editor',
    title: 'Edit text files line by line',
    description:
      'Reads ranges of lines and applies patches to them; each patch carries a hash of what it replaces, so an edit ' +
      'of a file that changed meanwhile is refused.',
    package: { registry: 'pypi', name: 'mcp-text-editor', version: '1.0.2', beside: ['mcp==1.30.0'] },
    program: 'mcp-text-editor',
    arguments: [],
    settings: [],
    secrets: [],
    systemPackages: [],
    network: OFFLINE,
    folders: [{ path: '/data', access: 'rw', about: 'The text files; it must be writable for user 1001.' }],
    isolation: { advice: 'client', why: FILES_ARE_SHARED },
    memoryMB: 55,
  },
  {
    name: 'excel',
    title: 'Read, write and format Excel workbooks',
    description:
      'Creates and edits .xlsx files without Excel: cells, formulas, formats, tables, charts and pivot tables.',
    package: { registry: 'pypi', name: 'excel-mcp-server', version: '2.2.2', beside: ['mcp==2.3.0'] },
    program: 'excel-mcp-server',
    arguments: [{ text: 'stdio' }],
    settings: [],
    secrets: [],
    systemPackages: [],
    network: OFFLINE,
    folders: [DOCUMENTS],
    isolation: { advice: 'client', why: FILES_ARE_SHARED },
    memoryMB: 88,
  },
  {
    name: 'word',
    title: 'Read, write and format Word documents',
    description:
      'Creates and edits .docx files without Word: text, headings, tables, pictures, footnotes, comments. Its ' +
      'conversion to PDF needs Microsoft Word or LibreOffice, which the image does not have.',
    package: {
      registry: 'pypi',
      name: 'office-word-mcp-server',
      version: '1.1.11',
      beside: ['fastmcp==4.1.2', 'mcp==2.3.0'],
    },
    program: 'word_mcp_server',
    arguments: [],
    settings: [],
    secrets: [],
    systemPackages: [],
    network: OFFLINE,
    folders: [DOCUMENTS],
    isolation: { advice: 'client', why: FILES_ARE_SHARED },
    memoryMB: 104,
  },
  {
    name: 'powerpoint',
    title: 'Make and edit PowerPoint presentations',
    description:
      'Builds .pptx files from slides, layouts, text, tables, charts and pictures, or fills in an existing one.',
    package: { registry: 'pypi', name: 'office-powerpoint-mcp-server', version: '2.0.7', beside: ['mcp==1.30.0'] },
    program: 'ppt_mcp_server',
    arguments: [],
    settings: [],
    secrets: [],
    systemPackages: [],
    network: OFFLINE,
    folders: [DOCUMENTS],
    isolation: {
      advice: 'session',
      why: 'Open presentations live in the process under numbers that everyone who shares it could use.',
    },
    memoryMB: 87,
  },
]
