/** One task: prove that the lint rules which guard a replay bite. */
import { join } from 'node:path';
import { ESLint } from 'eslint';
import tseslint from 'typescript-eslint';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');

/** The rules that refuse `text` as the file `path`; rules that need types are off, since the file does not exist. */
async function refusedBy(path: string, text: string): Promise<readonly string[]> {
  const eslint = new ESLint({
    cwd: ROOT,
    overrideConfig: [
      { ...tseslint.configs.disableTypeChecked, files: ['**/*.ts'] },
      { files: ['**/*.ts'], languageOptions: { parserOptions: { projectService: false } } },
    ],
  });
  const [result] = await eslint.lintText(text, { filePath: join(ROOT, path) });
  return result?.messages.map((message) => message.ruleId ?? message.message) ?? [];
}

const REFUSED = [
  ['workflows/planted.ts', "import { readFileSync } from 'node:fs';\nexport const x = readFileSync;\n"],
  ['workflows/planted.ts', "import { randomUUID } from 'crypto';\nexport const x = randomUUID;\n"],
  ['workflows/planted.ts', "import { connect } from '../src/postgres/connection.js';\nexport const x = connect;\n"],
  ['workflows/planted.ts', "import pg from 'pg';\nexport const x = pg;\n"],
  ['src/cutover/planted.ts', "import { readFileSync } from 'node:fs';\nexport const x = readFileSync;\n"],
  ['src/cutover/planted.ts', "import pg from 'pg';\nexport const x = pg;\n"],
] as const;

test.each(REFUSED)('%s may not import what would break a replay', async (path, text) => {
  expect(await refusedBy(path, text)).toContain('no-restricted-imports');
});

test('the domain may not read a clock or chance', async () => {
  const text = 'export const x = [Date.now(), Math.random(), new Date()];\n';
  const rules = await refusedBy('src/cutover/planted.ts', text);
  expect(rules.filter((rule) => rule === 'no-restricted-properties')).toHaveLength(2);
  expect(rules).toContain('no-restricted-syntax');
});

test('what workflows and the domain need is allowed', async () => {
  const workflow =
    "import { sleep } from '@temporalio/workflow';\nimport { x } from '../src/cutover/x.js';\nexport { sleep, x };\n";
  expect(await refusedBy('workflows/planted.ts', workflow)).toEqual([]);
  expect(await refusedBy('src/cutover/planted.ts', "export { invariant } from '../errors/invariant.js';\n")).toEqual(
    [],
  );
});

test('a lint rule cannot be switched off in a comment', async () => {
  const text = '// eslint-disable-next-line eqeqeq\nexport const x = (a: number, b: number): boolean => a == b;\n';
  expect(await refusedBy('src/wire/planted.ts', text)).toContain('eqeqeq');
});
