/**
 * One task: keep the workflow bundle of a version of the past for test/temporal/handover.test.ts.
 *
 * `node scripts/keep-workflows.mjs <commit>`; test/temporal/previous/README.md says when.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { explain, ROOT } from './setup.mjs';

const KEPT = join(ROOT, 'test/temporal/previous/workflow-bundle.js.gz');
/** What the workflows import, and what their bundler asks for. */
const PARTS = ['workflows', 'src/cutover', 'src/errors', 'package.json'];
/** A worker wants a source map in the bundle; the real one would be three quarters of the file and name this machine. */
const NO_SOURCES = '{"version":3,"file":"workflow-bundle.js","sources":[],"names":[],"mappings":""}';

async function keep(commit) {
  const copy = mkdtempSync(join(tmpdir(), 'cutover-version-'));
  try {
    const archive = execFileSync('git', ['archive', commit, ...PARTS], { cwd: ROOT, maxBuffer: 64 * 1024 * 1024 });
    execFileSync('tar', ['-x', '-C', copy], { input: archive });
    symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
    writeFileSync(KEPT, gzipSync(await bundle(copy), { level: 9 }));
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

async function bundle(root) {
  const { bundleWorkflowCode, DefaultLogger } = await import('@temporalio/worker');
  const { code } = await bundleWorkflowCode({
    workflowsPath: join(root, 'workflows/index.ts'),
    logger: new DefaultLogger('WARN'),
    // Modules are named as seen from there: nothing of where this machine has them.
    webpackConfigHook: (config) => ({ ...config, context: root, resolve: { ...config.resolve, symlinks: false } }),
  });
  const map = Buffer.from(NO_SOURCES).toString('base64');
  return code.replace(/(\/\/# sourceMappingURL=data:[^,]*,)[A-Za-z0-9+/=]+\s*$/, `$1${map}\n`);
}

const [commit] = process.argv.slice(2);
if (commit === undefined) throw new Error('usage: node scripts/keep-workflows.mjs <commit>');
await keep(commit).catch((error) => explain(error.message));
