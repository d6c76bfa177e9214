{"step": "collector started", "at": 0.0002284460006194422}
