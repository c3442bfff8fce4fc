/** One task: read what tests need out of a Markdown file: its tables, code blocks, links and headings. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The text of a file of the repository. */
export function readDocument(path: string): string {
  return readFileSync(`${ROOT}/${path}`, 'utf8');
}

/** The section under the heading `title`, to the next heading of the same or a higher level. */
export function section(text: string, title: string): string {
  const lines = text.split('\n');
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, '') === title);
  if (start < 0) throw new Error(`no section "${title}"`);
  const level = levelOf(lines[start] ?? '');
  const length = lines.slice(start + 1).findIndex((line) => levelOf(line) > 0 && levelOf(line) <= level);
  return lines.slice(start + 1, length < 0 ? undefined : start + 1 + length).join('\n');
}

function levelOf(line: string): number {
  return /^(#+) /.exec(line)?.[1]?.length ?? 0;
}

/** Every row of every table as its cells, the header first; rows of dashes are left out. `\|` is a bar inside a cell. */
export function tableRows(text: string): string[][] {
  return withoutCode(text)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.startsWith('|') && !/^\|[\s:|-]+\|$/.test(line))
    .map((line) =>
      line
        .slice(1, line.lastIndexOf('|'))
        .split(/(?<!\\)\|/)
        .map((cell) => cell.replaceAll('\\|', '|').trim()),
    );
}

/** A cell without the backticks around all of it. */
export function plain(cell: string): string {
  return /^`[^`]*`$/.test(cell) ? cell.slice(1, -1) : cell;
}

export interface CodeBlock {
  readonly language: string;
  /** the rest of the fence's line, as a file name */
  readonly label: string;
  readonly text: string;
}

/** Code blocks, those inside a list without its indentation. */
export function codeBlocks(text: string): CodeBlock[] {
  return [...text.matchAll(/^( *)```(\w*) ?([^\n]*)\n([\s\S]*?)^\1```$/gm)].map((match) => ({
    language: match[2] ?? '',
    label: match[3] ?? '',
    text: (match[4] ?? '').replaceAll(new RegExp(`^${match[1] ?? ''}`, 'gm'), ''),
  }));
}

/** Text between single backticks, outside code blocks. */
export function inlineCode(text: string): string[] {
  return [...withoutCode(text).matchAll(/(?<!`)`([^`\n]+)`(?!`)/g)].map((match) => match[1] ?? '');
}

export interface Link {
  /** relative path as written; empty for a place in the same file */
  readonly path: string;
  /** without the `#`; empty when there is none */
  readonly anchor: string;
}

/** Links that lead to files, not to the web. */
export function localLinks(text: string): Link[] {
  return [...withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)]
    .map((match) => match[1] ?? '')
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [path = '', anchor = ''] = target.split('#');
      return { path, anchor };
    });
}

/** The anchors of the headings, made as GitHub makes them. */
export function anchors(text: string): string[] {
  return withoutCode(text)
    .split('\n')
    .filter((line) => levelOf(line) > 0)
    .map((line) =>
      line
        .replace(/^#+ /, '')
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .trim()
        .replaceAll(' ', '-'),
    );
}

function withoutCode(text: string): string {
  return text.replace(/^ *```[\s\S]*?^ *```$/gm, '');
}
