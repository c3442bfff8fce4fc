/**
 * One task: the layers. An import points downwards in this list, or stays in its own layer; see docs/ for why.
 *
 * src/dev (embedded servers for the demo and the tests) stands beside src/cli.
 */
const LAYERS = [
  ['cli', '^src/(cli|dev)/'],
  ['process', '^src/[^/]+\\.ts$'],
  ['admin', '^src/(admin|dashboard|monitoring)/'],
  ['temporal', '^src/temporal/'],
  ['activities', '^activities/'],
  ['fleet', '^src/fleet/'],
  ['proxy', '^src/proxy/'],
  ['sharding', '^src/sharding/'],
  ['postgres', '^src/postgres/'],
  ['config', '^src/config/'],
  ['wire', '^src/wire/'],
  ['cutover', '^src/cutover/'],
  ['errors', '^src/errors/'],
];

const upwards = LAYERS.slice(1).map(([name, path], index) => ({
  name: `${name}-imports-downwards`,
  comment: `${name} may import only its own layer and those below it`,
  severity: 'error',
  from: { path },
  to: { path: LAYERS.slice(0, index + 1).map(([, above]) => above) },
}));

module.exports = {
  forbidden: [
    ...upwards,
    {
      name: 'workflows-import-the-domain-only',
      comment: 'a workflow must replay: only src/cutover and the workflow SDK are deterministic',
      severity: 'error',
      from: { path: '^workflows/' },
      to: { pathNot: '^(workflows/|src/cutover/|node_modules/@temporalio/(workflow|common)/)' },
    },
    {
      name: 'nobody-imports-workflows',
      comment: 'workflows are started by name and run in a sandbox of their own; only their types may be read',
      severity: 'error',
      from: { path: '^(src|activities)/' },
      to: { path: '^workflows/', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'domain-is-pure',
      comment: 'src/cutover does no I/O: no packages and no Node built-ins',
      severity: 'error',
      from: { path: '^src/cutover/' },
      to: { pathNot: '^src/(cutover|errors)/' },
    },
    {
      name: 'every-file-has-a-layer',
      comment: 'a folder of src that the list above does not name',
      severity: 'error',
      from: {},
      to: {
        path: '^src/',
        pathNot: [...LAYERS.map(([, path]) => path)],
      },
    },
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no-unresolved', severity: 'error', from: {}, to: { couldNotResolve: true } },
    {
      name: 'no-tests-in-the-product',
      severity: 'error',
      from: { path: '^(src|workflows|activities)/', pathNot: '\\.test\\.ts$' },
      to: { path: '^test/' },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'require', 'node', 'default'] },
  },
};
