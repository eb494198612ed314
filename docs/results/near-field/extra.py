import sys; sys.argv=['near.py']+sys.argv[1:]
from near import *
part=int(sys.argv[1]); V=40
import logging; logging.disable(logging.INFO)
init_default_scope("mmengine"); torch.set_num_threads(1)
P='work_dirs/pool/train'
mine=[i for i in range(0,360,30)][part::2]
t=time.time()
pool_one(('train','work_dirs/w','radocc_infos_train.pkl',mine,V,0,P)); print('pool',round(time.time()-t),flush=True)
for tag in '01':
    m = MODELS.build(config("teacher").model); m.load_state_dict(torch.load(f'work_dirs/t{tag}.pth', map_location="cpu")); m.eval()
    pool = Pool(P, torch.device('cpu'), points=True, keep=False)
    with torch.no_grad(), torch.autocast('cpu',dtype=torch.bfloat16,enabled=False):
        for i in mine:
            for v in range(V):
                path = pool.path / f"{i}_{v}.t{tag}.npy"
                if path.exists(): continue
                item = pool.get(i, v); inputs, samples = pool.batch(item, m.data_preprocessor)
                np.save(path, m(inputs, samples, mode="tensor")[0].float().half().numpy())
    print('dump',tag,round(time.time()-t),flush=True)
